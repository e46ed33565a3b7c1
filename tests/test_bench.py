import pandas as pd

from lib import bench


def test_the_table_of_switches_names_machine_and_command_and_is_relative_to_fp32(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "SWITCHES", {"fp32": {}, "bf16": {"precision": "bf16"}, "split": {"bn_splits": 4}})
    output = tmp_path / "deep" / "switches.csv"
    bench.main(["--archs", "mobilenet_v3_small", "--rounds", "1", "--steps", "1", "--output", str(output)])
    table = pd.read_csv(output)
    assert table.switch.tolist() == ["fp32", "bf16", "split"] and table.relative[0] == 1
    assert (table.images_per_second > 0).all()
    assert table[["device", "torch", "command"]].notna().all().all()
