"""The proof that needs nothing but torch: one line per stage and split, resumable."""

from __future__ import annotations

import json

from training.prove import main


def test_prove_trains_measures_and_goes_on(small_dataset, toy_system, tmp_path, capsys):
    dataset, out = str(small_dataset.dataset), str(tmp_path)
    arguments = [toy_system, "--train", dataset, "--test", dataset, "--resume", out]
    assert main([*arguments, "--minutes", "0"]) in (0, 3)
    assert "coder: out of time" in capsys.readouterr().out
    code = main(arguments)
    told = capsys.readouterr().out.splitlines()
    lines = json.loads(told[-1])
    assert [line["stage"] for line in lines if line["baseline"]] == ["coder", "coder", "mouth", "mouth"]
    assert code == (3 if any(line["verdict"] == "MISS" for line in lines) else 0)
    assert told[0].startswith("coder l1 known ")
    assert main(arguments) == code
    assert capsys.readouterr().out.splitlines() == told  # nothing is trained again
    assert main([toy_system, "--train", out, "--test", dataset]) == 2
