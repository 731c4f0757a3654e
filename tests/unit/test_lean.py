"""A start opens few files: no compiler for an optimizer, no scan for plugins, and both are there for who wants them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hpcreco import lean

pytestmark = pytest.mark.filterwarnings("error")


def output_of(program: str) -> str:
    """What a program prints in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


OPTIMIZE = """
import sys, torch
from hpcreco.train.schedule import build_optimizer
if {compiler}: import torch._dynamo.convert_frame
torch.manual_seed(0)
layer = torch.nn.Linear(3, 2)
for name in ("AdamW", "SGD", "Adadelta"):
    optimizer = build_optimizer(layer.parameters(), name, {{"lr": 0.1}})
    for _ in range(3):
        optimizer.zero_grad()
        layer(torch.ones(4, 3)).square().sum().backward()
        optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
print([p.requires_grad for p in layer.parameters()], layer.weight.detach().flatten().tolist())
print("sympy" in sys.modules, file=sys.stderr if {compiler} else sys.stdout)
"""


def test_optimizers_do_the_same_without_the_compiler():
    """Bit for bit, and torch's compiler (with sympy, which only it needs) is not imported."""
    weights, loaded = output_of(OPTIMIZE.format(compiler=False)).splitlines()
    assert loaded == "False"
    assert weights == output_of(OPTIMIZE.format(compiler=True))


COMPILE = """
import sys, torch
from hpcreco.train.schedule import build_optimizer
layer = torch.nn.Linear(3, 2)
build_optimizer(layer.parameters(), "AdamW", {"lr": 0.1}).step()
seen = []
def backend(graph, inputs):
    seen.append(len(list(graph.graph.nodes)))
    return graph.forward
{first}
"""


@pytest.mark.parametrize("asked", ["", "import torch._dynamo.config"])
def test_the_compiler_is_there_for_who_asks(asked):
    """Whichever way it is asked for first, a module is compiled afterwards, and none of its modules exists twice."""
    program = (
        COMPILE.replace("{first}", asked)
        + """
compiled = torch.compile(layer, backend=backend)
assert torch.equal(compiled(torch.ones(1, 3)), layer(torch.ones(1, 3)))
assert torch._dynamo is sys.modules["torch._dynamo"] and torch._dynamo.config is sys.modules["torch._dynamo.config"]
print(type(torch._dynamo).__name__, len(seen), torch._dynamo.disable.__module__)
"""
    )
    name, compiled, origin = output_of(program).split()
    assert int(compiled) == 1
    assert name in ("module", "ModuleType")
    assert origin.startswith("torch._dynamo")


def test_switches_of_the_user_stay():
    environment = {"PYDANTIC_DISABLE_PLUGINS": "one"}
    lean.without_scans(environment)
    assert environment == {"PYDANTIC_DISABLE_PLUGINS": "one", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}


def test_the_switches_are_those_that_the_libraries_read():
    """A switch that is renamed in a new version would silently stop working."""
    program = """
from hpcreco import lean
lean.without_scans()
import importlib.metadata as metadata
asked = []
scan = metadata.entry_points
def watched(**which):
    asked.append(which["group"])
    return scan(**which)
metadata.entry_points = watched
import torch, pydantic
class Model(pydantic.BaseModel):
    x: int
print(asked)
"""
    assert output_of(program) == "[]"
