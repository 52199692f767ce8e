"""Bytes that live and bytes that are saved, against counting by hand."""

from __future__ import annotations

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from autoseg.analysis.memory_tracker import LiveStorages, SavedStorages, tensor_bytes

CPU = torch.device("cpu")
KILO = 1000


def test_storages_count_from_their_making_to_their_end() -> None:
    with LiveStorages(CPU) as live:
        first = torch.zeros(KILO)
        assert live.live_bytes == 4 * KILO
        second = first + 1
        view = second.view(10, 100)[2:]  # shares its storage
        assert live.live_bytes == 8 * KILO
        del second
        assert live.live_bytes == 8 * KILO
        del view
        assert (live.live_bytes, live.peak_bytes) == (4 * KILO, 8 * KILO)
        first.add_(1)  # in place: nothing new
        assert live.peak_bytes == 8 * KILO


def test_in_between_results_make_the_peak() -> None:
    with LiveStorages(CPU) as live:
        start = torch.zeros(KILO, dtype=torch.float64)
        result = (start + 1).exp().sum()
        del start, result
    assert live.peak_bytes == 3 * 8 * KILO  # exp's argument and result beside `start`
    assert live.live_bytes == 0


def test_an_allocator_rounds_up_and_other_devices_do_not_count() -> None:
    with LiveStorages(CPU, block_bytes=512) as live:
        small = torch.zeros(1), torch.zeros(129)
        elsewhere = torch.zeros(KILO, device="meta")
        assert live.live_bytes == 512 + 1024
    del small, elsewhere


def test_what_a_stream_frees_only_that_stream_gets_again() -> None:
    with LiveStorages(CPU) as live:
        live.stream = "a"
        first = torch.zeros(KILO)
        del first
        live.stream = "b"
        second = torch.zeros(2 * KILO)
        live.stream = "a"
        third = torch.zeros(KILO)  # where the first was
        assert (live.peak_bytes, live.peak_bytes_of_streams) == (12 * KILO, 12 * KILO)
        live.stream = None
        del second
        fourth = torch.zeros(2 * KILO)  # not where the second was
        assert (live.peak_bytes, live.peak_bytes_of_streams) == (12 * KILO, 20 * KILO)
        assert live.restart() == 12 * KILO
        assert (live.peak_bytes, live.peak_bytes_of_streams) == (12 * KILO, 12 * KILO)
    del third, fourth


def test_tensors_without_data_count_as_with_and_cost_nothing() -> None:
    before = torch.zeros(5 * KILO)
    with FakeTensorMode(), LiveStorages(CPU) as live:
        live.add([before])
        huge = torch.empty(10**9, 100)  # 400 GB
        assert live.live_bytes == 4 * 10**11 + 20 * KILO
        del huge
    assert live.live_bytes == 20 * KILO


def test_saved_for_backward_is_each_storage_once_and_no_parameter() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 16, bias=False), nn.ReLU(), nn.Linear(16, 4, bias=False))
    images = torch.randn(10, 8)
    saved = SavedStorages(network.parameters())
    with saved:
        network(images)
    hidden = 10 * 16 * 4  # ReLU's output, saved by ReLU and by the second layer
    assert saved.total_bytes == images.nbytes + hidden
    assert tensor_bytes(network.parameters()) == 4 * (8 * 16 + 16 * 4)
