#!/bin/sh
# What the tests of archives and of results need: a real archive, and a judge of DICOM objects.
# Debian's are installed where that is allowed; elsewhere the tests say that they were skipped.
PLUGIN=/usr/share/orthanc/plugins/libOrthancDicomWeb.so
if command -v Orthanc > /dev/null && test -e "$PLUGIN" && command -v dciodvfy > /dev/null; then
    exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    # At run level 1 Debian starts no service: the tests start their own, on loopback.
    apt-get update -qq > /dev/null \
        && RUNLEVEL=1 apt-get install -qq --no-install-recommends \
            orthanc orthanc-dicomweb dicom3tools > /dev/null \
        && exit 0
fi
echo "The archive tests will be skipped: no Orthanc with DICOMweb, or no dciodvfy." >&2
