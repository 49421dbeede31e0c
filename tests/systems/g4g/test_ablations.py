"""Table 2: every row builds, and differs from "Ours" in the one setting that it names."""

from systems.g4g.ablations import MEASURES, TABLES


def test_rows_are_settings() -> None:
    *others, ours = TABLES["2"]
    assert ours.name == "Ours"
    for row in others:
        assert len(row.figures) == len(MEASURES)
        settings, whole = row.stage("paper").settings.model_dump(), ours.stage("paper").settings.model_dump()
        assert {name for name, value in settings.items() if value != whole[name]} == set(row.changes)


def test_the_paper_s_own_table_has_supervision_do_harm() -> None:
    """What the docstring says of it: larger PSNR, SSIM, LSE-C; smaller LPIPS, MSE, LSE-D."""
    without, ours = TABLES["2"][1].figures, TABLES["2"][3].figures
    higher = [a > b for a, b in zip(without, ours, strict=True)]
    assert higher == [True, True, False, False, False, True]
