"""Calibration: from one or a few annotated images of each class, choose which attention is read and where objects end.

`annotations` reads the images and masks, `calibrate` chooses the settings, `result` is what is stored.
"""
