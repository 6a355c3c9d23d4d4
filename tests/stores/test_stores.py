"""Object stores: what is published is whole, what fails is tried again or named, and nothing else is touched."""

import bz2
import gzip
import io
import lzma
import os
import shutil
import subprocess
import sys
import time
import zipfile

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from file_tree import tree
from log_trees import EMPTY, PATTERNS, PLACED, place

from tfrs_dlrm.data.raw import sources
from tfrs_dlrm.data.raw.file_patterns import matching
from tfrs_dlrm.schema import CategoricalFeature, Label, Schema, TextFormat
from tfrs_dlrm.serving.bundle import versions
from tfrs_dlrm.stores import (
    Listing,
    Mirror,
    RemoteFile,
    Store,
    StoreError,
    errors,
    forget_copy,
    is_store_url,
    local_copy,
    publish,
    unpublish,
)


@pytest.fixture
def directory(tmp_path):
    rng = np.random.default_rng(0)
    contents = {"a.bin": rng.bytes(200_000), "deep/er/b.txt": b"text", "empty": b"", "saved_model.pb": b"model"}
    for name, data in contents.items():
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "tree/unfinished").mkdir()
    (tmp_path / "tree/unfinished/half").write_bytes(b"half")
    (tmp_path / "tree/half.tmp").write_bytes(b"half")
    return str(tmp_path / "tree"), contents


@pytest.fixture
def client(store):
    """Amazon's own client, to look at the store by other means."""
    keys = {"aws_access_key_id": "loopback", "aws_secret_access_key": "loopback", "region_name": "us-east-1"}
    return boto3.client("s3", endpoint_url=store.environment["AWS_ENDPOINT_URL"], **keys)


def test_a_published_directory_comes_back(store, client, place, directory):
    path, contents = directory
    store.failing = 0.15
    publish(path, place, last=("saved_model.pb",))
    assert tree(local_copy(place)) == contents
    assert store.failed > 3
    store.failing = 0
    prefix = place.removeprefix("s3://bucket/")
    objects = client.list_objects_v2(Bucket="bucket", Prefix=f"{prefix}/")["Contents"]
    assert {o["Key"].removeprefix(f"{prefix}/") for o in objects} == {*contents, "published.json"}
    names = [os.path.basename(path) for path in store.written]  # tries that failed included
    assert list(dict.fromkeys(names))[-2:] == ["saved_model.pb", "published.json"]
    assert list(dict.fromkeys(reversed(names)))[:2] == ["published.json", "saved_model.pb"]
    with pytest.raises(FileExistsError, match="published at this address already"):
        publish(path, place)
    unpublish(place)
    assert Store(place).files() == {}


def test_nothing_is_visible_before_the_end(store, place, directory, monkeypatch):
    path, contents = directory
    monkeypatch.setattr(Listing, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        publish(path, place)
    assert "a.bin" in Store(place).files()
    with pytest.raises(FileNotFoundError, match="nothing is published at this address"):
        local_copy(place)
    monkeypatch.undo()
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    publish(path, place)
    assert tree(local_copy(place)) == contents


def test_other_objects_are_left_alone(store, client, place, directory):
    client.put_object(Bucket="bucket", Key=f"{place.removeprefix('s3://bucket/')}/precious", Body=b"!")
    with pytest.raises(FileExistsError, match=r"holds something else, such as .*/precious"):
        publish(directory[0], place)
    mirror = Mirror(place)
    os.makedirs(mirror.path)
    with pytest.raises(FileExistsError, match="holds something else"):
        mirror.push()
    assert list(Store(place).files()) == ["precious"]


@pytest.mark.parametrize("damage", [b"", b"x" * 200_000])
def test_damage_is_found(store, client, place, directory, damage):
    place += str(len(damage))
    publish(directory[0], place)
    client.put_object(Bucket="bucket", Key=f"{place.removeprefix('s3://bucket/')}/a.bin", Body=damage)
    with pytest.raises(ValueError, match=r"a\.bin: damaged or overwritten"):
        local_copy(place)


def test_a_local_copy_that_was_touched_is_mended(store, place, directory):
    path, contents = directory
    publish(path, place)
    copy = local_copy(place)
    with open(os.path.join(copy, "a.bin"), "r+b") as f:
        f.write(b"!")
    os.remove(os.path.join(copy, "empty"))
    assert tree(local_copy(place)) == contents
    before = store.requests
    local_copy(place)
    assert store.requests - before <= 3  # the list only


def other_machine(monkeypatch, tmp_path, name):
    monkeypatch.setenv("TFRS_DLRM_CACHE", str(tmp_path / name))


def test_a_growing_directory_goes_from_machine_to_machine(store, place, tmp_path, monkeypatch):
    def mirror():
        return Mirror(place, fixed=lambda name: name.startswith("fixed"))

    def write(name, data):
        path = os.path.join(mirror().path, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(data)

    assert not mirror().pull()
    write("fixed-1", b"1")
    write("log", b"a")
    mirror().push()
    write("fixed-2", b"2")
    write("log", b"ab")
    mirror().pull()  # what is newer here stays
    os.remove(os.path.join(mirror().path, "fixed-1"))
    assert tree(mirror().path) == {"fixed-2": b"2", "log": b"ab"}
    mirror().push()

    other_machine(monkeypatch, tmp_path, "other")
    mirror().pull()
    assert tree(mirror().path) == {"fixed-2": b"2", "log": b"ab"}
    write("log", b"abc")
    mirror().push()
    assert "fixed-1" not in Store(place).files()

    other_machine(monkeypatch, tmp_path, "cache")
    write("log", b"xyz")
    with pytest.raises(ValueError, match="another process has published at this address"):
        mirror().push()
    mirror().pull()  # the other went on meanwhile
    assert tree(mirror().path) == {"fixed-2": b"2", "log": b"abc"}

    unpublish(place)
    with pytest.raises(ValueError, match=r"the files published at this address are gone\. Its local copy is"):
        mirror().pull()


def test_a_remote_file_is_a_file(store, client):
    data = np.random.default_rng(1).bytes(3_000_000)
    client.put_object(Bucket="bucket", Key="file", Body=data)
    store.failing = 0.2
    remote, local = RemoteFile("s3://bucket/file"), io.BytesIO(data)
    rng = np.random.default_rng(2)
    for _ in range(50):
        position, size = int(rng.integers(0, 3_100_000)), int(rng.integers(0, 500_000))
        remote.seek(position), local.seek(position)
        assert remote.read(size) == local.read(size)
    remote.seek(-10, io.SEEK_END), local.seek(-10, io.SEEK_END)
    assert remote.read() == local.read()


def test_raw_files_of_every_kind_are_read_from_a_store(store, client, tmp_path):
    schema = Schema(Label("y"), categorical=(CategoricalFeature("c"),), text=TextFormat(delimiter=","))
    text = ("y,c\n" + "1,b\n" * 5000).encode()
    pq.write_table(pa.table({"y": [0, 1], "c": ["a", "b"]}), tmp_path / "log.parquet")
    parquet = (tmp_path / "log.parquet").read_bytes()
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("log.csv", text)
    packed = {"bz2": bz2.compress(text), "xz": lzma.compress(text), "zip": zipped.getvalue()}
    packed |= {"utf-16": text.decode().encode("utf-16"), "parquet": parquet, "parquet.gz": gzip.compress(parquet)}
    for name, data in packed.items():
        client.put_object(Bucket="bucket", Key=f"raw/y=0/{name}", Body=data)
        (tmp_path / name).write_bytes(data)
        remote, local = (
            [(b.first_row, b.rows, b.data) for b in sources.blocks(path, schema)]
            for path in (f"s3://bucket/raw/y=0/{name}", str(tmp_path / name))
        )
        assert remote == local
    client.put_object(Bucket="bucket", Key="raw/y=0/z.csv", Body=b"c\na\n")
    (block,) = sources.blocks("s3://bucket/raw/y=0/z.csv", schema)
    assert block.constants == {"y": "0"}


def test_patterns_name_the_same_files_in_a_store_and_on_a_disk(store, client, tmp_path):
    for path in PLACED:
        client.put_object(Bucket="bucket", Key=f"logs/{path}", Body=b"" if path in EMPTY else b"1")
    place(tmp_path / "bucket" / "logs")
    for pattern, expected in PATTERNS.items():
        found = [matching(f"{root}/bucket/logs/{pattern}".rstrip("/")) for root in ("s3:/", str(tmp_path))]
        found[1] = [path.replace(str(tmp_path), "s3:/", 1) for path in found[1]]
        assert found == [[f"s3://bucket/logs/{path}" for path in expected]] * 2, pattern
    everything = matching("s3://bucket")
    assert everything == matching("s3://bucket/**") and {f"s3://bucket/logs/{p}" for p in PATTERNS[""]} <= {*everything}
    with pytest.raises(FileNotFoundError, match=r"no object matches 's3://bucket/logs/y\.csv'$"):
        matching("s3://bucket/logs/y.csv")
    with pytest.raises(FileNotFoundError, match=r"only markers, hidden and empty files are there, such as '_SUCCESS'"):
        matching("s3://bucket/logs/empty")


@pytest.mark.parametrize(
    "code, words",
    [
        (b"AccessDenied", "access is denied, or the credentials have expired"),
        (b"ExpiredToken", "the credentials have expired; renew them"),
        (b"InvalidAccessKeyId", "the store does not know the access key"),
        (b"SignatureDoesNotMatch", "the secret key does not fit"),
    ],
)
def test_refusals_are_named_at_once(store, place, directory, code, words):
    store.refuse = code
    for action in (lambda: Store(place).files(), lambda: Store(place).write("x", b"1")):
        before = store.requests
        with pytest.raises(StoreError, match=words):
            action()
        assert store.requests == before + 1
    with pytest.raises(StoreError, match=r"access is denied|credentials|secret key|access key"):
        publish(directory[0], place)


def test_what_is_missing_or_cannot_be_reached(store, place, directory, monkeypatch):
    with pytest.raises(StoreError, match=r"the bucket 'nowhere' does not exist; make it first"):
        Store("s3://nowhere/x").files()
    with pytest.raises(StoreError, match="the bucket does not exist; make it first"):
        Store("s3://nowhere/x").write("y", b"")
    with pytest.raises(FileNotFoundError, match=r"s3://bucket/nothing: the object does not exist"):
        RemoteFile("s3://bucket/nothing")
    store.failing, before = 1.0, errors.retries()
    with pytest.raises(StoreError, match=r"failed 6 times; is the store reachable"):
        Store(place).files()
    assert errors.retries() == before + 5
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    begin = time.monotonic()
    with pytest.raises(StoreError, match=r"writing s3://bucket/.*/x: failed 6 times"):
        Store(place).write("x", b"1")
    assert time.monotonic() - begin < 30


@pytest.mark.parametrize(
    "text, words",
    [
        ("hdfs://host/x", r"s3:// \(S3\) and gs:// \(Google Cloud Storage\) are supported"),
        ("s3://", "names no bucket"),
        ("s3:///x", "names no bucket"),
        ("s3://b/x//y", "are no names in a store"),
        ("s3://b/../y", "are no names in a store"),
    ],
)
def test_addresses(text, words):
    assert is_store_url(text)
    with pytest.raises(ValueError, match=words):
        Store(text)


def run(place):
    return Mirror(place, fixed=lambda name: name.startswith(("steps/", "best/")))


def put(mirror, name, data):
    path = os.path.join(mirror.path, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(data)


def test_a_cleaned_cache_removes_nothing(store, place):
    mirror = run(place)
    put(mirror, "steps/1", b"1")
    put(mirror, "best/1", b"1")
    mirror.push()
    shutil.rmtree(os.path.join(mirror.path, "steps"))
    with pytest.raises(ValueError, match=r"steps is missing in the local copy, but still published"):
        mirror.push()
    run(place).pull()
    assert tree(mirror.path) == {"steps/1": b"1", "best/1": b"1"}
    with open(os.path.join(mirror.path, "best/1"), "wb"):
        pass  # as a power cut leaves it
    run(place).pull()
    assert tree(mirror.path)["best/1"] == b"1"


def test_only_one_process_writes_and_the_others_leave_the_copy_alone(store, place, tmp_path, monkeypatch):
    writer = run(place)
    writer.write_alone()
    put(writer, "steps/1", b"1")
    writer.push()
    with pytest.raises(ValueError, match=r"in use by this process on .*, which works on it since"):
        run(place).write_alone()
    put(writer, "steps/2", b"2")
    other_machine(monkeypatch, tmp_path, "other")
    other = run(place)
    other.pull()
    put(other, "steps/3", b"3")
    other.push()
    other_machine(monkeypatch, tmp_path, "cache")
    assert run(place).pull() and "steps/2" in tree(writer.path)
    with pytest.raises(ValueError, match="another process has published at this address"):
        writer.push()
    writer.done_writing()
    run(place).pull()
    assert tree(run(place).path) == {"steps/1": b"1", "steps/3": b"3"}


def test_of_two_that_publish_at_a_time_one_is_told(store, place, tmp_path, monkeypatch):
    mirror = run(place)
    put(mirror, "steps/1", b"1")
    mirror.push()
    put(mirror, "steps/2", b"2")
    upload = Mirror._upload

    def meanwhile(self, *arguments):
        found = upload(self, *arguments)
        with monkeypatch.context() as patch:
            patch.setattr(Mirror, "_upload", upload)
            patch.setenv("TFRS_DLRM_CACHE", str(tmp_path / "other"))
            other = run(place)
            other.pull()
            put(other, "steps/3", b"3")
            other.push()
        return found

    monkeypatch.setattr(Mirror, "_upload", meanwhile)
    with pytest.raises(ValueError, match="another process has published at this address"):
        mirror.push()
    assert set(mirror.listing().files) == {"steps/1", "steps/3"}


def test_what_others_read_is_not_overwritten(store, place, monkeypatch, tmp_path):
    mirror = run(place)
    put(mirror, "steps/1", b"old")
    mirror.push()
    put(mirror, "steps/1", b"other bytes")
    with monkeypatch.context() as patch:
        patch.setattr(Listing, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            mirror.push()
    other_machine(monkeypatch, tmp_path, "other")
    run(place).pull()
    assert tree(run(place).path) == {"steps/1": b"old"}
    other_machine(monkeypatch, tmp_path, "cache")
    mirror.push()
    other_machine(monkeypatch, tmp_path, "third")
    run(place).pull()
    assert tree(run(place).path) == {"steps/1": b"other bytes"}


def test_a_reader_takes_what_is_published_while_it_reads(store, place, tmp_path, monkeypatch):
    mirror = run(place)
    put(mirror, "steps/1", b"1")
    mirror.push()
    other_machine(monkeypatch, tmp_path, "other")
    reader, listing = run(place), Mirror.listing
    first = []

    def changes(self):
        found = listing(self)
        if not first:
            first.append(found)
            with monkeypatch.context() as patch:
                patch.setenv("TFRS_DLRM_CACHE", str(tmp_path / "cache"))
                os.remove(os.path.join(mirror.path, "steps/1"))
                put(mirror, "steps/2", b"2")
                mirror.push()
        return found

    monkeypatch.setattr(Mirror, "listing", changes)
    reader.pull()
    assert tree(reader.path) == {"steps/2": b"2"}


def test_an_upload_that_fails_leaves_no_half_object(store, place, tmp_path):
    (tmp_path / "large").write_bytes(bytes(20_000_000))

    def fails(size):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        Store(place).upload(str(tmp_path / "large"), "large", fails)
    assert Store(place).files() == {}


def test_names(store, place, tmp_path):
    for name in ("published.json", "user.part-a.txt", "x.part-0123abcd", "y.tmp"):
        (tmp_path / "tree").mkdir(exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(b"1")
    publish(str(tmp_path / "tree"), place)
    assert tree(local_copy(place)) == {"user.part-a.txt": b"1"}
    listing = Mirror(place).listing()
    evil = Listing(listing.id, "other", {"../../evil": listing.files["user.part-a.txt"]})
    evil.write(Store(place))
    with pytest.raises(ValueError, match=r"'\.\./\.\./evil' is no name of a file"):
        local_copy(place)
    with pytest.raises(FileNotFoundError, match="nothing is published at this address"):
        unpublish("s3://bucket")


def test_a_copy_in_use_is_not_removed(store, place, directory):
    publish(directory[0], place)
    program = "import sys; from tfrs_dlrm.stores import forget_copy; print(forget_copy(sys.argv[1]))"
    copy = local_copy(place)
    answer = subprocess.run([sys.executable, "-c", program, copy], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False" and tree(copy) == directory[1]
    assert forget_copy(copy) and not os.path.exists(copy)
    assert tree(local_copy(place)) == directory[1]


def test_an_object_that_changes_while_it_is_read(store, client):
    client.put_object(Bucket="bucket", Key="changing", Body=b"a" * 3_000_000)
    file = RemoteFile("s3://bucket/changing")
    assert file.read(10) == b"a" * 10
    client.put_object(Bucket="bucket", Key="changing", Body=b"b" * 3_000_000)
    file.seek(2_000_000)
    with pytest.raises(StoreError, match="overwritten while it was read"):
        file.read(10)


def test_only_bundles_are_removed(store, client, place, directory):
    for number in (1, 3):
        publish(directory[0], f"{place}/{number}")
    prefix = place.removeprefix("s3://bucket/")
    for key in ("2/saved_model.pb", "2024/log.tsv", "4/half"):
        client.put_object(Bucket="bucket", Key=f"{prefix}/{key}", Body=b"1")
    assert versions.remove_old(place, 2) == [] and versions.next_version(place) == 2025
    assert versions.remove_old(place, 1) == [f"{place}/1"]
    left = {name.split("/")[0] for name in Store(place).files()}
    assert left == {"2", "3", "4", "2024"} and versions.whole_versions(place) == [3]
