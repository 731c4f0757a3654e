from pathlib import Path

import pytest

from hpcreco.experiments.protodune import names


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("reco_BeamCosmic_001_wire-TPC1.npz", ("BeamCosmic", 1, "wire", 1, None, None)),
        ("reco_singleElectron_953_depoElectron-TPC1.npz", ("Electron", 953, "depoElectron", 1, None, None)),
        ("epoch24-batch3-reco_BeamCosmic_017_yinf-TPC10.h5", ("BeamCosmic", 17, "yinf", 10, 3, 24)),
        ("x.Mu.7.hit", ("Mu", 7, "hit", None, None, None)),
        ("reco_BeamCosmic_001_wire-TPC1*.npz", ("BeamCosmic", 1, "wire", None, None, None)),
        ("reco_BeamCosmic_001_wire-TPC12*.npz", ("BeamCosmic", 1, "wire", None, None, None)),
        ("batch0-reco_BeamCosmic_2_xy-TPCJ1-5-10.h5", ("BeamCosmic", 2, "xy", None, 0, None)),
        ("run-epoch3-reco_Pion_2_xy.h5", ("Pion", 2, "xy", None, None, None)),
    ],
)
def test_grammar(file, expected):
    name = names.parse(Path("/somewhere/Mu_1_wire") / file)
    assert name.key("event_type", "index", "product", "tpc", "batch", "epoch") == expected


@pytest.mark.parametrize(
    "file",
    [
        "notes.txt",
        "reco_BeamCosmic_wire.npz",
        "reco_BeamCosmic_001_wires-TPC1.npz",
        "reco_BeamCosmic_001_depoX.npz",
        "reco_BeamCosmic__001_wire.npz",
        "reco_Proton_001_wire.npz",
    ],
)
def test_names_outside_the_grammar_are_reported_not_fatal(file, tmp_path):
    assert names.parse(file) is None
    (tmp_path / file).touch()
    (tmp_path / "reco_Mu_1_wire.h5").touch()
    (tmp_path / ".reco_Mu_2_wire.h5.part-host-1").touch()
    (tmp_path / "simulate.json").touch()
    known, unknown = names.scan([tmp_path])
    assert [n.index for n in known] == [1]
    assert unknown == [tmp_path / file]
    with pytest.raises(names.FileNameError, match="EventType"):
        names.require(file)


def test_only_the_product_token_is_replaced():
    assert (
        names.replace_product("wire_depo_Mu_1_wire-wire-TPC1.npz", "xy") == "wire_depo_Mu_1_xy-wire-TPC1.npz"
    )
    assert names.derived("/a/reco_Mu_1_wire-TPC1.h5", "xy", batch=2) == "batch2-reco_Mu_1_xy-TPC1.h5"
    assert (
        names.derived("batch2-reco_Mu_1_xy-TPC1.h5", "yinf", epoch=24)
        == "epoch24-batch2-reco_Mu_1_yinf-TPC1.h5"
    )


@pytest.mark.parametrize("event_type", names.EVENT_TYPES)
@pytest.mark.parametrize("product", names.PRODUCTS)
def test_compose_and_parse_are_inverse(event_type, product):
    name = names.parse(names.compose(event_type, 1234, product, 5))
    assert name.key("event_type", "index", "product", "tpc") == (event_type, 1234, product, 5)


@pytest.mark.parametrize(
    ("tpcs", "token"),
    [
        ((5,), "TPC5"), ((10,), "TPC10"), ((1, 5, 9), "TPC159"), ((1, 2), "TPC12"), ((9, 5, 1), "TPC951"),
        ((1, 0), "TPCJ1-0"), ((0, 1), "TPCJ0-1"), ((1, 5, 10), "TPCJ1-5-10"), ((2, 6, 10), "TPCJ2-6-10"),
        ((11, 1), "TPCJ11-1"),
    ],
)  # fmt: skip
def test_several_tpcs_have_one_unambiguous_token(tpcs, token):
    assert names.tpc_token(tpcs) == token
    name = names.require(names.replace_tpc("batch0-reco_Mu_7_xy-TPC3.h5", tpcs))
    assert name.path.name == f"batch0-reco_Mu_7_xy-{token}.h5"
    assert (name.tpcs or (name.tpc,)) == tpcs
    assert name.tpc == (tpcs[0] if len(tpcs) == 1 else None)


def test_tables_group_select_difference_flatten():
    files = [
        f"reco_{kind}_{index:03d}_{product}-TPC{tpc}.h5"
        for kind in ("Electron", "BeamCosmic")
        for index in (10, 2)
        for product in ("wire", "depo")
        for tpc in (5, 1)
    ] + ["reco_Mu_1_wire.h5"]
    table = names.group([names.require(f) for f in reversed(files)])
    assert len(table) == 9
    assert all(len(group) in (1, 2) for group in table.values())
    keys = list(table)
    assert (
        keys.index(("BeamCosmic", 2, 1))
        < keys.index(("BeamCosmic", 2, 5))
        < keys.index(("BeamCosmic", 10, 1))
    )
    wires = names.select(table, lambda n: n.product == "wire" and n.tpc == 1)
    assert set(wires) == {
        ("BeamCosmic", 2, 1),
        ("BeamCosmic", 10, 1),
        ("Electron", 2, 1),
        ("Electron", 10, 1),
    }
    rest = names.difference(table, wires)
    assert set(rest) | set(wires) == set(table) and not set(rest) & set(wires)
    assert sorted(str(n.path) for n in names.flatten(table)) == sorted(files)
    with pytest.raises(ValueError, match="cannot group"):
        names.group([], by=("colour",))
