"""U-Nets with the weight names of nnU-Net's networks, so that weights go both ways."""
