#!/bin/sh
/usr/lib/harness/look claimed
