"""Measures of pictures and of their spread over speakers: one implementation each."""
