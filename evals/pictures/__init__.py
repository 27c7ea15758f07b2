"""What a model makes, for the eye and the ear: grids of images, waves and spectrograms, points, alignments."""
