"""See the Speaker (Wang et al.): speech alone in, a talking face out."""
