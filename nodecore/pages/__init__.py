"""Chapters and figures: from a text notebook to a page of the built book."""
