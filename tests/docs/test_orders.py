"""The parts of the example `orders`: its files, its bad payment server, the comparison of the books."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from orders import payments
from orders.books import Entry, ShopBook, ShopOrder, compare, totals
from orders.load import FaultyRow, Files, TakenOrder, make_shop, read_files
from orders.payments import Book, Charge
from support.database import Database

CUSTOMERS = "customer_id,name,email,country,card\nC1,Ada Novak,ada@example.org,DE,card_1\n"
PRODUCTS = "product_id,name,price,stock\nTEA,Assam,8.90,10\nPOT,Teapot,59.00,2\n"


def files_of(directory: Path, orders: str, lines: str) -> Files:
    """Read four files of which two are as given."""
    for name, text in {
        "customers": CUSTOMERS,
        "products": PRODUCTS,
        "orders": f"order_no,customer_id,ordered_at,total\n{orders}\n",
        "order_lines": f"order_no,product_id,quantity\n{lines}\n",
    }.items():
        (directory / f"{name}.csv").write_text(text)
    return read_files(directory)


# ------------------------------------------------------------------------------------------------ the files


def test_a_good_order_is_taken_with_its_lines_and_its_card(tmp_path: Path) -> None:
    files = files_of(tmp_path, "A-1,C1,2026-11-20 06:02,76.80", "A-1,TEA,2\nA-1,POT,1")
    assert files.faulty == []
    assert files.orders == [
        TakenOrder("A-1", "C1", "card_1", datetime(2026, 11, 20, 6, 2), 7680, {"TEA": 2, "POT": 1})  # noqa: DTZ001
    ]


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ("A-1,,2026-11-20 06:02,8.90", "no customer"),
        ("A-1,C9,2026-11-20 06:02,8.90", "unknown customer"),
        ("A-1,C1,2026-11-31 06:02,8.90", "malformed date"),
        ("A-1,C1,2026-11-20 06:02,8.9O", "malformed amount"),
        ("A-1,C1,2026-11-20 06:02,-8.90", "malformed amount"),
        ("A-1,C1,2026-11-20 06:02,8.9", "malformed amount"),
        ("A-1,C1,2026-11-20 06:02", "malformed amount"),
        ("A-1,C1,2026-11-20 06:02,9.90", "total differs from the lines' sum"),
        (",C1,2026-11-20 06:02,8.90", "no order number"),
    ],
)
def test_a_faulty_order_is_set_aside_with_its_reason(tmp_path: Path, order: str, reason: str) -> None:
    files = files_of(tmp_path, f"{order}\nA-2,C1,2026-11-20 06:03,8.90", "A-1,TEA,1\nA-2,TEA,1")
    assert [taken.number for taken in files.orders] == ["A-2"]
    assert (files.faulty[-1].file, files.faulty[-1].line, files.faulty[-1].reason) == ("orders.csv", 2, reason)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("A-1,CUP,1", "unknown product"),
        ("A-1,TEA,-2", "quantity is not positive"),
        ("A-1,TEA,0", "quantity is not positive"),
        ("A-1,TEA,two", "malformed quantity"),
        ("A-1,TEA", "malformed quantity"),
    ],
)
def test_a_faulty_line_keeps_its_whole_order_from_being_taken(tmp_path: Path, line: str, reason: str) -> None:
    files = files_of(tmp_path, "A-1,C1,2026-11-20 06:02,59.00", f"A-1,POT,1\n{line}")
    assert files.orders == []
    assert [(row.file, row.line, row.reason) for row in files.faulty] == [
        ("order_lines.csv", 3, reason),
        ("orders.csv", 2, "line 3 of order_lines.csv is faulty"),
    ]


def test_a_duplicate_order_number_is_taken_once(tmp_path: Path) -> None:
    order = "A-1,C1,2026-11-20 06:02,8.90"
    files = files_of(tmp_path, f"{order}\n{order}", "A-1,TEA,1")
    assert len(files.orders) == 1
    assert files.faulty == [FaultyRow("orders.csv", 3, "duplicate order number", order)]


def test_an_order_without_lines_and_a_line_without_order_are_faulty(tmp_path: Path) -> None:
    files = files_of(tmp_path, "A-1,C1,2026-11-20 06:02,8.90", "A-2,TEA,1")
    assert [row.reason for row in files.faulty] == ["unknown order", "no lines"]


def test_every_row_of_the_real_file_is_taken_or_listed() -> None:
    files = read_files()
    set_aside = [row for row in files.faulty if row.file == "orders.csv"]
    assert files.order_rows == len(files.orders) + len(set_aside) >= 300
    assert (
        len({row.reason.partition(" ")[0] if row.reason.startswith("line ") else row.reason for row in files.faulty})
        >= 10
    )


def test_the_loader_lists_the_faulty_rows_in_a_table(empty_database: Database) -> None:
    files = read_files()
    make_shop(empty_database.connect(), files)
    assert empty_database.value("select count(*) from shop.faulty_row") == len(files.faulty) > 10
    assert empty_database.value("select count(*) from shop.product where stock = delivered") == len(files.products)


# ------------------------------------------------------------------------------------------------ the payment server


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    """A book in a file of its own."""
    made = Book(tmp_path / "book.sqlite")
    yield made
    made.close()


@pytest.fixture
def payment_server(book: Book) -> Iterator[payments.Server]:
    """A payment server without faults."""
    made = payments.Server(book, 0, 0.0, None)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def pay(server: payments.Server, key: str, *, card: str = "card_1") -> dict[str, object]:
    """Ask the server once."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.server_port}/charges",
        data=json.dumps({"order": "A-1", "card": card, "amount": 890}).encode(),
        headers={"Idempotency-Key": key},
    )
    with urllib.request.urlopen(request, timeout=5) as answer:
        found: dict[str, object] = json.load(answer)
        return found


def test_the_same_key_is_charged_once_and_answered_alike(payment_server: payments.Server, book: Book) -> None:
    first, second, other = pay(payment_server, "k1"), pay(payment_server, "k1"), pay(payment_server, "k2")
    assert first == second != other
    assert [charge.key for charge in book.charges()] == ["k1", "k2"]
    assert len(book.requests()) == 3


def test_a_declined_card_stays_declined_and_moves_no_money(payment_server: payments.Server, book: Book) -> None:
    for _ in range(2):
        with pytest.raises(urllib.error.HTTPError) as refused:
            pay(payment_server, "k1", card="card_declined")
        assert refused.value.code == 402
        refused.value.close()
    assert [charge.is_declined for charge in book.charges()] == [True]


@pytest.mark.parametrize("fault", payments.FAULTS)
def test_a_fault_loses_the_answer_but_never_the_charge(
    payment_server: payments.Server, book: Book, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(payments, "TOO_LATE", 0.01)
    monkeypatch.setattr(payment_server, "next_fault", lambda: fault)
    if "answer" in fault or "listening" in fault:  # only late, so this patient client gets it
        pay(payment_server, "k1")
    else:
        with pytest.raises((OSError, urllib.error.URLError)) as failed:
            pay(payment_server, "k1")
        if isinstance(failed.value, urllib.error.HTTPError):
            failed.value.close()
    assert len(book.charges()) == payments.FAULTS[fault] or "listening" in fault
    monkeypatch.setattr(payment_server, "next_fault", lambda: None)
    pay(payment_server, "k1")
    assert len(book.charges()) == 1
    assert [request.fault for request in book.requests()] == [fault, None]


def test_the_book_survives_its_server(book: Book, tmp_path: Path) -> None:
    charge = book.charge("k1", "A-1", "card_1", 890)
    again = Book(tmp_path / "book.sqlite")
    assert again.charge("k1", "A-1", "card_1", 890) == charge
    again.close()


# ------------------------------------------------------------------------------------------------ the books

SHIPPED = TakenOrder("A-1", "C1", "card_1", datetime(2026, 11, 20), 7680, {"TEA": 2, "POT": 1})  # noqa: DTZ001
REJECTED = TakenOrder("A-2", "C1", "card_declined", datetime(2026, 11, 20), 890, {"TEA": 1})  # noqa: DTZ001
PLACED = [SHIPPED, REJECTED]
CHARGES = [Charge("p1", "k1", "A-1", 7680, False), Charge("p2", "k2", "A-2", 890, True)]
ENTRY = Entry("A-1", "p1", 7680)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return files_of(tmp_path, "A-1,C1,2026-11-20 06:02,8.90", "A-1,TEA,1")


@pytest.fixture
def shop() -> ShopBook:
    return ShopBook(
        orders=[
            ShopOrder("A-1", "shipped", None, 7680, "completed", "shipped"),
            ShopOrder("A-2", "rejected", "card declined", 890, "completed", "card declined"),
        ],
        ledger=[ENTRY],
        reserved=[("A-1", "POT", 1), ("A-1", "TEA", 2)],
        shipped=["A-1"],
        stock={"TEA": 8, "POT": 1},
        faulty_rows=0,
    )


def test_books_that_agree_have_no_difference(files: Files, shop: ShopBook) -> None:
    assert compare(files, PLACED, shop, CHARGES) == []
    added = totals(files, PLACED, shop, CHARGES)
    assert added.expected == added.in_ledger == added.at_payments == 7680
    assert (added.shipped, added.rejected, added.charges) == (1, {"card declined": 1}, 1)
    assert added.in_stock == added.stock_expected == 9


def falsify(shop: ShopBook, lie: str) -> tuple[ShopBook, list[Charge]]:
    """Return the books with one thing wrong in them."""
    charges = list(CHARGES)
    shipped, rejected = shop.orders
    if lie == "charged twice":
        charges.append(Charge("p3", "k3", "A-1", 7680, False))
    elif lie == "charged another amount":
        charges[0] = replace(charges[0], amount=7681)
    elif lie == "never charged":
        del charges[0]
    elif lie == "charged although rejected":
        charges[1] = replace(charges[1], is_declined=False)
    elif lie == "charged for nobody's order":
        charges.append(Charge("p3", "k3", "A-7", 1, False))
    elif lie == "booked twice":
        shop.ledger.append(ENTRY)
    elif lie == "booked under another payment":
        shop.ledger[0] = replace(ENTRY, payment_id="p9")
    elif lie == "shipped twice":
        shop.shipped.append("A-1")
    elif lie == "reserved twice":
        shop.reserved.append(("A-1", "TEA", 2))
    elif lie == "goods not put back":
        shop.reserved.append(("A-2", "TEA", 1))
    elif lie == "stock gone":
        shop.stock["TEA"] -= 1
    elif lie == "order lost":
        del shop.orders[1]
    elif lie == "order stuck":
        shop.orders[1] = replace(rejected, status="paid", run_status=None)
    elif lie == "order without a run":
        shop.orders[0] = replace(shipped, run_status=None, run_result=None)
    elif lie == "run says otherwise":
        shop.orders[0] = replace(shipped, run_result="card declined")
    elif lie == "nobody's order":
        shop.orders.append(replace(shipped, number="A-9"))
    elif lie == "faulty row lost":
        shop.faulty_rows = -1
    return shop, charges


@pytest.mark.parametrize(
    "lie",
    [
        "charged twice",
        "charged another amount",
        "never charged",
        "charged although rejected",
        "charged for nobody's order",
        "booked twice",
        "booked under another payment",
        "shipped twice",
        "reserved twice",
        "goods not put back",
        "stock gone",
        "order lost",
        "order stuck",
        "order without a run",
        "run says otherwise",
        "nobody's order",
        "faulty row lost",
    ],
)
def test_every_lie_in_a_book_is_found(files: Files, shop: ShopBook, lie: str) -> None:
    assert compare(files, PLACED, *falsify(shop, lie)) != []
