"""Data sets of images and label masks, their augmentation, and the batches that training and evaluation see."""
