"""Which images and which method the 8-bit files of a model are made with."""
