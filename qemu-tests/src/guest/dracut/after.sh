#!/bin/sh
/usr/lib/harness/look after
