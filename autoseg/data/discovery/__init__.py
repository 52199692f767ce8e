"""Finding images, masks, splits and classes in other people's folders."""
