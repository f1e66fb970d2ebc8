# SPDX-License-Identifier: GPL-2.0-or-later
"""What a remedy may do to a machine, step by step: a closed set of kinds, each of which knows how it is undone.

A step is data: it names what was done, and holds no command. What undoing it runs is written here, in code, and which
kinds of step and which files a remedy may use is declared by the remedy (`Remediation.reach`).
"""

from ejectable.remedies.steps.base import Altered, Reach, System
from ejectable.remedies.steps.cloud import ChangeInstanceType, StartInstance, StopInstance
from ejectable.remedies.steps.files import FileStep, RemoveFile, SetKernelValue, WriteFile
from ejectable.remedies.steps.live import AddToDkms, EnableUnits, LoadModule, ReloadUnits, StartUnits
from ejectable.remedies.steps.packages import InstallPackages
from ejectable.remedies.steps.renewal import RenewInitramfs, RenewMenu

__all__ = [
    "AddToDkms",
    "Altered",
    "ChangeInstanceType",
    "EnableUnits",
    "FileStep",
    "InstallPackages",
    "LoadModule",
    "Reach",
    "ReloadUnits",
    "RemoveFile",
    "RenewInitramfs",
    "RenewMenu",
    "SetKernelValue",
    "StartInstance",
    "StartUnits",
    "Step",
    "StopInstance",
    "System",
    "WriteFile",
]

Step = (
    WriteFile
    | RemoveFile
    | SetKernelValue
    | RenewMenu
    | RenewInitramfs
    | InstallPackages
    | StopInstance
    | ChangeInstanceType
    | StartInstance
    | LoadModule
    | ReloadUnits
    | EnableUnits
    | StartUnits
    | AddToDkms
)
