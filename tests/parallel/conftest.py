"""The backends that can be tested here."""

from __future__ import annotations

import pytest

from hpcreco import parallel


@pytest.fixture(params=["horovod", "ddp"])
def backend(request) -> str:
    """Each backend that joins ranks; Horovod only where it is built."""
    if request.param == "horovod" and not parallel.horovod_works():
        pytest.skip("needs Horovod (tools/setup builds it where there is a compiler)")
    return request.param
