"""What is measured of networks: operations, memory, structure, receptive field."""
