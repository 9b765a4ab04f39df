#!/bin/sh
/usr/lib/harness/look before
