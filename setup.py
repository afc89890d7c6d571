"""Map the top-level folder recipes/ to the package mystudio.recipes; everything else is in pyproject.toml."""

from setuptools import find_namespace_packages, setup
from setuptools.command.build_py import build_py


class BuildPackages(build_py):
    """Leave out the programs beside the recipes: they make data of the repository and are not installed."""

    def find_package_modules(self, package, package_dir):
        return [] if package == "mystudio.recipes" else super().find_package_modules(package, package_dir)


setup(
    packages=[*find_namespace_packages(include=["selfscan*", "mystudio*"]), "mystudio.recipes"],
    package_dir={"mystudio.recipes": "recipes"},
    cmdclass={"build_py": BuildPackages},
)
