"""What a model makes, for the eye and the ear: grids of images, waves with their spectrograms, points of a plane."""
