"""What several tests share: small inputs, runs and data sets, oracles, pretended systems, and checks of errors."""
