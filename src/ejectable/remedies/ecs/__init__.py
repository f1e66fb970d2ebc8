# SPDX-License-Identifier: GPL-2.0-or-later
"""Alibaba Cloud ECS: names of instance types, the metadata service, the API, and changing an instance's type."""
