"""Whole slides: gigapixel images of a microscope, of which regions are read and never all at once.

The pictures of a slide's label and of the whole glass, which bear names, are not read.
"""
