"""Saved sources: loaded they are the same to the last bit, each folder alone, and damage is never overlooked."""

from __future__ import annotations

import shutil

import pytest
import torch
import yaml

from hpcreco.config import ConfigError
from hpcreco.experiments.icecube import components, hypothesis, trafo
from hpcreco.experiments.icecube.arrays import hexagonal
from hpcreco.experiments.icecube.components import ComponentError

FIELDS = ("charge", "variance", "full_charge", "rate", "integral")


def outputs(source, parameters, data):
    with torch.no_grad():
        e = source.expect(parameters, data)
    return [getattr(e, name) for name in FIELDS]


def nested(make):
    """Noise beside a row of two cascades: three levels."""
    row = {
        "model_class": "StartingVariableMultiCascadeModel",
        "config": {"num_cascades": 2},
        "multi_source_bases": {"cascade": {"model_class": "DefaultCascadeModel", "config": make.small}},
    }
    return make.both(row)


def outer_trafo(make):
    extra = ("cascade_00001_energy", "cascade_00001_distance")
    return make.standard([f"cascade_{name}" for name in (*make.standard().names, *extra)])


@pytest.fixture
def saved(make, detector, tmp_path):
    source = make.source(nested(make), detector, outer_trafo(make), dtype=torch.float32)
    return source, components.save(source, tmp_path / "model", {"config": {"a": 1}, "steps": 7})


@pytest.fixture
def question(make):
    parameters = torch.cat([make.cascades(dtype=torch.float32), torch.full((1, 2, 2), 50.0)], -1)
    return parameters, make.random_events(dtype=torch.float32)


def test_loaded_is_bitwise_the_same(saved, question):
    source, folder = saved
    loaded = components.load(folder)
    assert loaded.parameter_names == source.parameter_names and not loaded.training
    for a, b in zip(outputs(source, *question), outputs(loaded, *question), strict=True):
        assert torch.equal(a, b)
    assert loaded.trafo.names == source.trafo.names and (loaded.trafo.mean == source.trafo.mean).all()


@pytest.mark.parametrize("level", ["noise", "cascade", "cascade/cascade"])
def test_every_folder_loads_alone_and_moved(saved, level, question, tmp_path):
    source, folder = saved
    elsewhere = shutil.move(folder / level, tmp_path / "elsewhere")
    shutil.rmtree(folder)
    loaded = components.load(elsewhere)
    inner = source
    for name in level.split("/"):
        inner = inner.bases[name]
    parameters = question[0][..., : len(inner.parameter_names)]
    for a, b in zip(
        outputs(inner, parameters, question[1]), outputs(loaded, parameters, question[1]), strict=True
    ):
        assert torch.equal(a, b)


def test_saved_again_is_the_same(saved, tmp_path):
    again = components.save(components.load(saved[1]), tmp_path / "again", {"config": {"a": 1}, "steps": 7})
    for path in saved[1].rglob("weights.pt"):
        assert (again / path.relative_to(saved[1])).read_bytes() == path.read_bytes()


def test_provenance_and_check_values(saved):
    record = yaml.safe_load((saved[1] / "cascade" / "cascade" / "configuration.yaml").read_text())
    assert record["provenance"]["steps"] == 7 and record["class"] == "DefaultCascadeModel"
    assert record["config"]["num_filters_list"] == [6, 8, 10] and record["software_version"]
    assert set(record["check_values"]) == set(
        components.own_tensors(saved[0].bases["cascade"].bases["cascade"])
    )


def test_double_precision_is_kept(make, detector, tmp_path):
    source = make.cascade(detector)
    loaded = components.load(components.save(source, tmp_path / "model"))
    for name, value in source.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value) and value.dtype == torch.float64


def change(path, **values):
    record = yaml.safe_load(path.read_text())
    record.update(values)
    path.write_text(yaml.safe_dump(record))


def test_an_edited_configuration_is_refused(saved):
    change(saved[1] / "cascade" / "configuration.yaml", config={"num_cascades": 3})
    with pytest.raises(ComponentError, match="changed after it was written"):
        components.load(saved[1])


def test_edited_weights_are_refused(saved):
    path = saved[1] / "noise" / "weights.pt"
    torch.save({"values": torch.zeros(2)}, path)
    with pytest.raises(ComponentError, match=r"weights\.pt: changed"):
        components.load(saved[1])


@pytest.mark.parametrize(
    ("weights", "message"),
    [({}, "missing values"), ({"values": torch.zeros(2), "more": torch.zeros(1)}, "unexpected more")],
)
def test_missing_and_unexpected_weights_are_named(saved, weights, message):
    """Also where the digests were made to fit."""
    folder = saved[1] / "noise"
    torch.save(weights, folder / "weights.pt")
    record = yaml.safe_load((folder / "configuration.yaml").read_text())
    record["weights_sha256"] = components._file_digest(folder / "weights.pt")
    record["digest"] = components._digest(record)
    (folder / "configuration.yaml").write_text(yaml.safe_dump(record))
    with pytest.raises(ComponentError, match=message):
        components.load(folder)


def test_a_base_of_another_model_is_refused(saved, make, detector, tmp_path):
    other = make.source(nested(make), detector, outer_trafo(make), seed=9, dtype=torch.float32)
    other = components.save(other, tmp_path / "other")
    shutil.rmtree(saved[1] / "cascade")
    shutil.copytree(other / "cascade", saved[1] / "cascade")
    with pytest.raises(ComponentError, match="not the base"):
        components.load(saved[1])


@pytest.mark.parametrize("name", ["weights.pt", "cascade", "data_trafo/trafo.h5", "detector-*.h5"])
def test_missing_files_are_named(saved, name):
    (path,) = saved[1].glob(name)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ComponentError, match="missing"):
        components.load(saved[1])


def test_another_detector_is_refused(saved):
    with pytest.raises(ComponentError, match="another detector"):
        components.load(saved[1], hexagonal(3, 4, seed=1))
    with pytest.raises(ComponentError, match="another detector"):
        components.load(saved[1], hexagonal(7, 4), allow_geometry_mismatch=True)
    components.load(saved[1], hexagonal(3, 4, seed=1), allow_geometry_mismatch=True)


def test_newer_formats_are_refused_numerically(saved):
    assert components.version("1.10") > components.version("1.9") > components.version("1")
    change(saved[1] / "configuration.yaml", format_version="1.10")
    with pytest.raises(ComponentError, match="newer hpcreco"):
        components.load(saved[1])
    with pytest.raises(ComponentError, match="numbers between dots"):
        components.version("one")


def test_folders_are_not_overwritten_by_accident(saved, make, detector, tmp_path):
    with pytest.raises(ComponentError, match="exists"):
        components.save(saved[0], saved[1])
    components.save(saved[0], saved[1], overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_no_saved_source(tmp_path):
    with pytest.raises(ComponentError, match="no configuration"):
        components.load(tmp_path)


# ------------------------------------------------------------------------------------------- as bases


def test_load_dir_brings_weights_and_transformation_and_is_frozen(saved, make, detector, question, tmp_path):
    source, folder = saved
    settings = {
        "model_class": "StartingVariableMultiCascadeModel",
        "config": {"num_cascades": 2},
        "multi_source_bases": {
            "cascade": {"load_dir": str(folder / "cascade" / "cascade"), "model_class": "DefaultCascadeModel"}
        },
    }
    built = hypothesis.build(settings, detector)
    for a, b in zip(outputs(source.bases["cascade"], *question), outputs(built, *question), strict=True):
        assert torch.equal(a, b)
    assert not any(p.requires_grad for p in built.parameters())
    settings["multi_source_bases"]["cascade"]["trainable"] = True
    assert all(p.requires_grad for p in hypothesis.build(settings, detector).parameters())


def test_load_dir_of_another_class_is_refused(saved, detector):
    settings = {"load_dir": str(saved[1] / "noise"), "model_class": "DefaultCascadeModel"}
    with pytest.raises(ConfigError, match="is a DefaultNoiseModel"):
        hypothesis.build(settings, detector)


def test_a_config_that_differs_from_what_is_loaded_is_reported(saved, detector, caplog):
    config = {"num_filters_list": [6, 9, 10], "activation_list": ["elu", "elu", None]}
    hypothesis.build({"load_dir": str(saved[1] / "cascade" / "cascade"), "config": config}, detector)
    assert "num_filters_list is [6, 9, 10]" in caplog.text


def test_a_transformation_of_its_own(make, detector, tmp_path):
    trafo.write(tmp_path / trafo.FILE, make.standard())
    settings = nested(make)
    cascade = settings["multi_source_bases"]["cascade"]["multi_source_bases"]["cascade"]
    cascade["data_trafo_settings"] = {"model_dir": str(tmp_path), "num_batches": 5}
    source = hypothesis.build(settings, detector)
    assert source.trafo is None and source.bases["cascade"].bases["cascade"].trafo.std[0] == 100.0
