"""A house with everything in it, and the way to its file."""

import pytest_twisted
from fixtures import House


@pytest_twisted.async_yield_fixture
async def make_house(tmp_path):
    """Makes houses, each on a file of its own unless a folder is named, that are shut with the test."""
    made = []

    async def make(folder=None, **options):
        if folder is None:
            folder = tmp_path / f"house-{len(made)}"
            folder.mkdir()
        house = House(folder, **options)
        made.append(house)
        await house.start()
        return house

    yield make
    for house in made:
        if house.db.running:
            await house.stop()


@pytest_twisted.async_yield_fixture
async def house(tmp_path):
    house = House(tmp_path)
    await house.start()
    yield house
    await house.stop()
