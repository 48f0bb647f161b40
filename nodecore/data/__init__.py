"""The samples that models are trained and tested on."""
