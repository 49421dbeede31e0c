"""Floor 1: from recorded media to samples. Decoding, faces, landmarks, crops, sound; never torch."""
