"""Images, audio and symbolic music: prepared into WebDataset tars with an index, and read from them at random.

Preparing imports no torch, so that workers start fast; `image_data.py`, `audio_data.py` and `music_data.py`, which a
recipe names, do.
"""
