"""Image files and pixels: reading, preprocessing, drawing."""
