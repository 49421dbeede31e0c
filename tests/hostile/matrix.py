"""All rows of the bad-input matrix, B1 to B31, in order."""

from hostile import files, kept, lines
from hostile.bench import Row

from contracts.reasons import Reason

ROWS = (
    Row("B1", "id-escapes", "ids and names that lead elsewhere", lines.escaping_ids),
    Row("B2", "id-odd", "ids with dots, twins, right-to-left marks", lines.odd_ids),
    Row("B3", "duplicates", "the same id, the same content", lines.duplicates),
    Row("B4", "path-escapes", "links out, FIFO, device, socket, folder", lines.escaping_paths),
    Row("B5", "addresses", "addresses for paths, listener hears nothing", lines.addresses),
    Row("B6", "missing", "missing and unreadable files", lines.missing),
    Row("B7", "no-media", "empty, one byte, random bytes, text", files.no_media),
    Row("B8", "playlists", "HLS, ffconcat, DASH, SDP under other names", files.playlists),
    Row("B9", "external-data", "MP4 whose data lie elsewhere", files.external_data),
    Row("B10", "faststart-cut", "MP4 with the index first, cut", files.cuts),
    Row("B11", "corrupt-group", "one damaged group of pictures", files.corrupt_group),
    Row("B12", "many-pixels", "8192 x 8192", files.many_pixels, target="<= 0.5 s, <= 200 MB"),
    Row("B13", "lying-length", "headers that claim hours and millions of frames", files.lying_length),
    Row("B14", "long", "30 minutes", files.long_clip),
    Row("B15", "short", "0.2 s", files.short_clip),
    Row("B16", "many-streams", "1000 streams, 300 subtitles, cover art", files.many_streams),
    Row("B17", "no-stream", "no sound, no pictures", files.no_stream),
    Row("B18", "sound-too-short", "4 s of pictures, 1 s of sound", kept.sound_too_short, needs=(Reason.AV_LENGTH,)),
    Row("B19", "sound-late", "sound 400 ms late or early", kept.sound_late, needs=(Reason.AV_OFFSET,)),
    Row("B20", "rates", "12 to 120 frames/s, variable: exactly 25", kept.rates),
    Row(
        "B21",
        "poor-sound",
        "silence, clipping",
        kept.poor_sound,
        needs=(Reason.SILENT, Reason.NOT_SPEECH, Reason.CLIPPED),
    ),
    Row("B22", "no-number", "sound that is no number", files.no_numbers),
    Row("B23", "lying-wav", "WAV that claims 2 GB", files.lying_wav),
    Row("B24", "sounds", "8 to 192 kHz, 1 to 8 channels: exactly 16 kHz mono", kept.sounds),
    Row("B25", "faces", "none, two, leaving, small, lying, a cat, a drawing", kept.faces),
    Row("B26", "frozen", "one picture, and speech", kept.frozen, needs=(Reason.STATIC_FRAMES,)),
    Row("B27", "colours", "10 and 16 bits, alpha, odd sizes, turned: upright 8-bit RGB", kept.colours),
    Row("B28", "stills", "giant, cut and double-natured pictures", files.stills),
    Row("B29", "manifest-syntax", "broken, giant and nested manifest lines", lines.syntax),
    Row("B30", "consent", "missing, expired, withdrawn, for something else", kept.consent),
    Row("B31", "names-metadata", "names and metadata that would run, canary lives", lines.odd_names),
)
