"""G4G (Zhang et al.): dubs an existing video with new speech."""
