"""Reading annotations that are drawn as polygons, boxes and runs, of the programs that people label images with."""
