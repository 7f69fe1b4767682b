"""A recording of the demo in a terminal, as asciicast and as a picture that plays."""
