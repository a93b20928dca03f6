"""Organizations: who stands behind a token, who pays in a tree of them, and whether one more service is covered.

The problem, on one example. A reseller R has a customer C, and C a branch B; somebody of B signs in:

    claim                    what follows
    id: B                    the organization that everything is done for
    B under C under R        R pays: R's account is the one that is asked, and B is told that its parent manages billing
    scopes: account:read     account routes may be read, not changed
    timezone: Africa/Cairo   2023-09-14 01:16:36 in UTC is shown as 2023-09-14 04:16:36

A clearance for one more of something counts what is there and what was cleared a moment ago, for the service that asks
makes its row only after the answer. Sources: contract 5.1 to 5.10, 6.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from .outcomes import Refusal

ID_MAX_CHARACTERS: Final = 255
DEPTH_MAX: Final = 32
"""How deep a tree of organizations may be."""

READ_SCOPE: Final = "account:read"
WRITE_SCOPE: Final = "account:write"

_EUROPE: Final = "AT BE HR CY EE FI FR DE GR IE IT LV LT LU MT NL PT SK SI ES BG CZ HU PL RO SE DK"
CURRENCIES: Final[Mapping[str, str]] = {**dict.fromkeys(_EUROPE.split(), "EUR"), "GB": "GBP", "ZA": "ZAR", "AU": "AUD"}
"""The currency of an account by its country; USD for all others."""
SYMBOLS: Final[Mapping[str, str]] = {"USD": "$", "EUR": "€", "GBP": "£", "ZAR": "R", "AUD": "A$"}

_COUNTRIES: Final = (
    "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW "
    "BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI "
    "FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN "
    "IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME "
    "MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF "
    "PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV "
    "SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE "
    "YT ZA ZM ZW"
)
COUNTRIES: Final = frozenset(_COUNTRIES.split())
"""ISO 3166-1 alpha-2."""

_TAX_TYPES: Final = (
    "ad_nrt ae_trn al_tin am_tin ao_tin ar_cuit au_abn au_arn aw_tin az_tin ba_tin bb_tin bd_bin bf_ifu bg_uic "
    "bh_vat bj_ifu bo_tin br_cnpj br_cpf bs_tin by_tin ca_bn ca_gst_hst ca_pst_bc ca_pst_mb ca_pst_sk ca_qst "
    "cd_nif ch_uid ch_vat cl_tin cm_niu cn_tin co_nit cr_tin cv_nif de_stn do_rcn ec_ruc eg_tin es_cif et_tin "
    "eu_oss_vat eu_vat gb_vat ge_vat gn_nif hk_br hr_oib hu_tin id_npwp il_vat in_gst is_vat jp_cn jp_rn "
    "jp_trn ke_pin kg_tin kh_tin kr_brn kz_bin la_tin li_uid li_vat ma_vat md_vat me_pib mk_vat mr_nif mx_rfc "
    "my_frp my_itn my_sst ng_tin no_vat no_voec np_pan nz_gst om_vat pe_ruc ph_tin ro_tin rs_pib ru_inn ru_kpp "
    "sa_vat sg_gst sg_uen si_tin sn_ninea sr_fin sv_nit th_vat tj_tin tr_tin tw_vat tz_vat ua_vat ug_tin "
    "us_ein uy_ruc uz_tin uz_vat ve_rif vn_tin za_vat zm_tin zw_tin"
)
TAX_TYPES: Final = tuple(_TAX_TYPES.split())
"""Kinds of tax numbers, by Stripe's names (contract 5.6)."""
VERIFIED_TYPES: Final = frozenset({"au_abn", "eu_vat", "gb_vat"})
"""Those that are looked up in a register; of others nobody says whether they are real."""

_GREEK: Final = "EL"


class Claims(NamedTuple):
    """What a token says of who calls: ``organization`` is the claim ``id``; the rest has a default.

    ``zone`` is the name of a time zone as it was given; whether there is one is found out where a time is shown.
    """

    organization: str
    user: str | None = None
    zone: str = "UTC"
    scopes: frozenset[str] = frozenset()
    is_direct: bool | None = None

    def needs(self, scope: str) -> None:
        """Raises Refusal ``insufficient_scope``."""
        if scope not in self.scopes:
            raise Refusal("insufficient_scope", f"The token needs the scope {scope}.", scope=scope)


def read_claims(given: Mapping[str, Any]) -> Claims:
    """The claims of a token whose signature was verified (contract 5.2). Raises Refusal ``invalid_credentials``.

    ``scopes`` is a list of texts, or one text with spaces between; where it is missing, ``permissions`` is read.
    """
    organization = given.get("id")
    if isinstance(organization, int) and not isinstance(organization, bool):
        organization = str(organization)
    if not is_name(organization):
        raise Refusal("invalid_credentials", "The customer id is missing: the token has no claim id.")
    user = given.get("user_id")
    if isinstance(user, int) and not isinstance(user, bool):
        user = str(user)
    if user is not None and not is_name(user):
        raise Refusal("invalid_credentials", "The claim user_id is a text.")
    user = None if user is None else str(user)
    zone = given.get("timezone")
    scopes = given.get("scopes", given.get("permissions", []))
    if isinstance(scopes, str):
        scopes = scopes.split()
    if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
        raise Refusal("invalid_credentials", "The claim scopes is a list of texts.")
    is_direct = given.get("is_direct")
    zone = str(zone) if is_name(zone) else "UTC"
    return Claims(str(organization), user, zone, frozenset(scopes), is_direct if isinstance(is_direct, bool) else None)


def is_name(value: object) -> bool:
    """Whether an organization, or a person of one, can be named so: printable, without a space at either end."""
    if not isinstance(value, str) or not 0 < len(value) <= ID_MAX_CHARACTERS:
        return False
    return value.isprintable() and value == value.strip()


def path_to_root(parents: Mapping[int, int | None], id: int, below: int = 0) -> tuple[int, ...]:
    """The organizations from one up to the one at the top, who pays; ``below`` is how deep the tree goes under it.

    Raises Refusal ``organization_cycle``, also where the tree would be deeper than :data:`DEPTH_MAX`.
    """
    path = [id]
    parent = parents.get(id)
    while parent is not None:
        if parent in path or len(path) >= DEPTH_MAX:
            raise Refusal("organization_cycle")
        path.append(parent)
        parent = parents.get(parent)
    if len(path) + below > DEPTH_MAX:
        raise Refusal("organization_cycle")
    return tuple(path)


def currency_of(country: str) -> str:
    """The currency that an account gets with its first subscription (contract 5.4)."""
    return CURRENCIES.get(country, "USD")


def tax_country(type: str, value: str) -> str:  # noqa: A002 - the contract's word
    """The country of a tax number: it stands in its kind; of a European one, in the number."""
    if not type.startswith("eu_"):
        return type[:2].upper()
    country = value.strip()[:2].upper()
    return "GR" if country == _GREEK else country if country in CURRENCIES else "EU"


def flag_of(country: str) -> str:
    """The emoji of a country's flag."""
    return "".join(chr(0x1F1E6 + ord(letter) - ord("A")) for letter in country)


class Cleared(NamedTuple):
    """Whether one more may be made. ``expected`` is how many there will be, for those who ask a moment later."""

    is_allowed: bool
    used: int
    total: int | None
    expected: int


def clear(counted: int, lately: int | None, total: int | None) -> Cleared:
    """Judge one more of something: ``counted`` are there, ``lately`` were expected by the last clearance.

    ``total`` None: as many as they like. What was cleared a moment ago may not be there yet, so the larger counts.
    """
    used = counted if lately is None else max(counted, lately)
    is_allowed = total is None or used < total
    return Cleared(is_allowed, used, total, used + is_allowed)
