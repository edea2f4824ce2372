"""What the tests of the configuration load with."""

import pytest

from sydentish.config import ConfigError, load

MINIMUM = "[general]\nserver_name = example.org\npublic_base_url = https://id.example.org\n"


@pytest.fixture
def conf(tmp_path):
    return tmp_path / "sydentish.conf"


@pytest.fixture
def loaded(conf):
    def load_text(text, environ=None, *, minimum=MINIMUM):
        conf.write_text(minimum + text)
        conf.chmod(0o600)
        return load(conf, environ or {})

    return load_text


@pytest.fixture
def problems(conf, loaded):
    def problems_of(text, environ=None, *, minimum=MINIMUM):
        with pytest.raises(ConfigError) as caught:
            loaded(text, environ, minimum=minimum)
        assert str(caught.value).splitlines() == [str(problem) for problem in caught.value.problems]
        return [str(problem).removeprefix(f"{conf}:") for problem in caught.value.problems]

    return problems_of
