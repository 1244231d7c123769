"""Built-in converters: other layouts of data sets to nnU-Net's."""
