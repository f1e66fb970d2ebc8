# SPDX-License-Identifier: GPL-2.0-or-later
"""What the virtio bus does at shutdown: virtio_bus.shutdown is read, and run where there is one."""

from ejectable.experiment import Bench, Result, calls, ends, state

__all__ = ["experiment"]

BUS, STRUCT = "virtio_bus", "bus_type"


def experiment(bench: Bench) -> Result:
    """Whether a virtio device is reset when the machine goes down."""
    scene = bench.scene(follow=("virtio_*",))
    device = scene.new("virtio_device", config=scene.operations("virtio_config_ops"))
    device.sub("vqs").init()
    # `match` and `probe` have always been there: where they are not seen, the table was not read right.
    driver = scene.new("virtio_driver", id_table=scene.alloc(64, "a table of no devices")).sub("driver")
    matched = scene.run(scene.target(BUS, STRUCT, "match"), device.sub("dev"), driver)
    readable = state(matched, "virtio_bus.match was found and run", matched.exit == "returned")
    if not scene.pointed_to(BUS, STRUCT, "shutdown"):
        nothing = state(matched, "virtio_bus.shutdown is NULL: nothing stops a device at shutdown", True)
        return bench.decide(affected=nothing, fixed=~nothing, control=readable)
    device.sub("dev").set(driver=driver)
    outcome = scene.run(scene.target(BUS, STRUCT, "shutdown"), device.sub("dev"))
    return bench.decide(
        affected=ends(outcome) & ~calls(outcome, "reset"),
        fixed=ends(outcome) & calls(outcome, "reset", first=device),
        control=readable,
    )
