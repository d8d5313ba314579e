import pytest

from tokka.errors import UsageError
from tokka.models.hosts import check_host, host_of


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000/v1",
        "http://127.8.9.1/v1",
        "http://localhost/v1",
        "http://LOCALHOST./v1",
        "https://[::1]:8443/v1",
        "http://[::ffff:127.0.0.1]/v1",
    ],
)
def test_loopback_needs_no_permission(url: str) -> None:
    check_host(url, [])


@pytest.mark.parametrize(
    "url",
    [
        "https://models.example.jp/v1",
        "https://127.0.0.1.example.jp/v1",
        "https://localhost.example.jp/v1",
        "http://0.0.0.0:8000/v1",
        "http://192.168.0.9/v1",
        "http://[fe80::1]/v1",
    ],
)
def test_any_other_host_is_refused_and_named(url: str) -> None:
    host, _ = host_of(url)
    with pytest.raises(UsageError, match="nothing was sent") as refusal:
        check_host(url, ["other.example.jp"])
    assert f"add {host} under hosts" in str(refusal.value)


@pytest.mark.parametrize(
    ("url", "listed"),
    [
        ("https://models.example.jp/v1", "models.example.jp"),
        ("https://MODELS.example.jp./v1", "models.example.jp"),
        ("https://models.example.jp:8443/v1", "Models.Example.JP."),
        ("https://models.example.jp:8443/v1", "models.example.jp:8443"),
        ("http://192.168.0.9:8000/v1", "192.168.0.9"),
        ("http://[fe80::1]:8000/v1", "fe80::1"),
    ],
)
def test_a_listed_host_is_allowed_however_it_is_spelt(url: str, listed: str) -> None:
    check_host(url, [listed])


@pytest.mark.parametrize(
    ("url", "listed"),
    [
        ("https://models.example.jp:9000/v1", "models.example.jp:8443"),
        ("https://evil.models.example.jp/v1", "models.example.jp"),
        ("https://models.example.jp.evil.jp/v1", "models.example.jp"),
    ],
)
def test_a_listing_covers_that_host_and_port_only(url: str, listed: str) -> None:
    with pytest.raises(UsageError, match="is not listed"):
        check_host(url, [listed])


@pytest.mark.parametrize(
    "url",
    [
        "http://2130706433/v1",  # 127.0.0.1 to some resolvers
        "http://3232235529/v1",  # 192.168.0.9
        "http://0x7f000001/v1",
        "http://0x7f.1/v1",
        "http://0177.0.0.1/v1",
        "http://127.1/v1",
        "http://127.0.0.1../v1",
        "http://127.0.0.1\\@evil.jp/v1",
        "http://127.0.0.1 .evil.jp/v1",
        "http://127.0.0.1\t/v1",
        "http://１２７.0.0.1/v1",
        "http://青葉.jp/v1",
        "http://127.0.0.1%2eevil.jp/v1",
        "http://[::1/v1",
        "http://host:port/v1",
        "http:///v1",
        "file:///etc/passwd",
        "models.example.jp/v1",
    ],
)
def test_what_two_readers_could_read_as_two_hosts_is_no_host(url: str) -> None:
    with pytest.raises(UsageError):
        host_of(url)


@pytest.mark.parametrize("url", ["http://127.0.0.1@evil.jp/v1", "https://me:s3cret@127.0.0.1/v1"])
def test_a_password_in_a_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UsageError, match="environment variable") as refusal:
        check_host(url, ["evil.jp"])
    assert "s3cret" not in str(refusal.value)


def test_a_wrong_entry_in_the_list_is_named() -> None:
    with pytest.raises(UsageError, match=r"hosts: '\*\.example\.jp'"):
        check_host("https://models.example.jp/v1", ["*.example.jp"])
