"""What the Stripe simulator does with the tax numbers of customers.

The problem, on one example. Stripe keeps a number at once and looks it up in a register later; what it finds is told by
the digits of the number, as Stripe's documentation of tests has them:

    POST /v1/customers/cus_1/tax_ids     type=eu_vat value=DE000000000     txi_1, pending; a moment later verified
    POST /v1/customers/cus_1/tax_ids     type=eu_vat value=111111111       pending; a moment later unverified
    POST /v1/customers/cus_1/tax_ids     type=gb_vat value=222222222       pending for good
    POST /v1/customers/cus_1/tax_ids     type=za_vat value=4123456789      unavailable: no register is asked
    POST /v1/customers/cus_1/tax_ids     type=eu_vat value=Germany         400 tax_id_invalid

Any other number that looks like one is in no register. Source: contract 5.6.
"""

from __future__ import annotations

import re
from typing import Any, Final

from tenuto.core.organization import TAX_TYPES, VERIFIED_TYPES, tax_country
from tenuto.gateway.simulator_book import Change, Obj, Refusal
from tenuto.gateway.simulator_cards import living_customer, page_of
from tenuto.gateway.simulator_input import Params

OUTCOMES: Final = {"000000000": "verified", "111111111": "unverified", "222222222": "pending"}
"""What becomes of a number that a register is asked about, by its last nine digits."""
VERIFIED_NAME: Final = "Test Company"
VERIFIED_ADDRESS: Final = "1 Test Street, Test Town"
_SHAPES: Final = {
    "eu_vat": re.compile(r"[A-Z]{2}(?=.*\d)[0-9A-Z+*]{2,12}"),
    "gb_vat": re.compile(r"(GB|XI)?(\d{9}|\d{12})"),
    "au_abn": re.compile(r"\d{11}"),
}


def create_tax_id(change: Change, params: Params, id: str) -> Obj:
    """POST /v1/customers/{id}/tax_ids."""
    params.only("type", "value")
    customer = living_customer(change, id, "id")
    kind, value = params.needed("type"), params.needed("value")
    if kind not in TAX_TYPES:
        raise Refusal(400, f"Invalid type: must be one of {', '.join(TAX_TYPES[:3])}, ….", param="type")
    digits = re.sub(r"\D", "", value)
    plain = re.sub(r"[ .-]", "", value).upper()
    shape = _SHAPES.get(kind)
    if shape is not None and digits not in OUTCOMES and not shape.fullmatch(plain):
        raise Refusal(400, f"Invalid value for {kind}.", code="tax_id_invalid", param="value")
    made = change.new(
        "txi",
        "tax_id",
        country=tax_country(kind, plain),
        customer=customer["id"],
        customer_account=None,
        owner={"type": "customer", "customer": customer["id"]},
        type=kind,
        value=value,
        verification=_verification("pending" if kind in VERIFIED_TYPES else "unavailable"),
    )
    outcome = OUTCOMES.get(digits[-9:], "unverified")
    if kind in VERIFIED_TYPES and outcome != "pending":
        change.finish_at(change.now, made["id"], outcome)
    change.emit("customer.tax_id.created", made)
    return made


def _verification(status: str) -> dict[str, Any]:
    is_found = status == "verified"
    return {
        "status": status,
        "verified_address": VERIFIED_ADDRESS if is_found else None,
        "verified_name": VERIFIED_NAME if is_found else None,
    }


def read_tax_id(change: Change, params: Params, id: str) -> Obj:
    """GET /v1/customers/{customer}/tax_ids/{id}."""
    params.only()
    return _owned(change, id)


def _owned(change: Change, id: str) -> Obj:
    """A number of the very customer whose path it is asked for by."""
    customer, _, tax_id = id.partition("/")
    found = change.find("tax_id", tax_id)
    if found.get("deleted") or found.get("customer") != customer:
        raise Refusal(404, f"No such tax_id: '{tax_id}'", code="resource_missing", param="id")
    return found


def list_tax_ids(change: Change, params: Params, id: str) -> Obj:
    """GET /v1/customers/{id}/tax_ids, newest first."""
    params.only("limit", "starting_after", "ending_before")
    living_customer(change, id, "id")
    return page_of(change, params, "tax_id", f"/v1/customers/{id}/tax_ids", field="customer", value=id)


def delete_tax_id(change: Change, params: Params, id: str) -> Obj:
    """DELETE /v1/customers/{customer}/tax_ids/{id}."""
    params.only()
    found = _owned(change, id)
    change.emit("customer.tax_id.deleted", dict(found))
    gone: Obj = {"id": found["id"], "object": "tax_id", "created": found["created"], "deleted": True}
    change.keep(gone)
    return gone


def finish(change: Change, id: str, outcome: str) -> bool:
    """The register has answered; False where the object is no tax number."""
    found = change.account.objects.get(id)
    if found is None or found["object"] != "tax_id":
        return False
    if not found.get("deleted"):
        found["verification"] = _verification(outcome)
        change.emit("customer.tax_id.updated", found)
    return True
