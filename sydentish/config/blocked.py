"""The addresses that no homeserver has on the public internet."""

# IANA's special-purpose registries (RFC 6890 and its successors), and what lies outside of global unicast. A
# homeserver's name that resolves to one of these leads into our own network, or nowhere.
BLOCKED_ADDRESSES = (
    "0.0.0.0/8",  # this host and this network (RFC 791)
    "10.0.0.0/8",  # private (RFC 1918)
    "100.64.0.0/10",  # shared by customers of a provider, CGNAT (RFC 6598)
    "127.0.0.0/8",  # loopback (RFC 1122)
    "169.254.0.0/16",  # link-local, the metadata services of clouds among them (RFC 3927)
    "172.16.0.0/12",  # private (RFC 1918)
    "192.0.0.0/24",  # protocol assignments (RFC 6890)
    "192.0.2.0/24",  # documentation (RFC 5737)
    "192.88.99.0/24",  # relays of 6to4, withdrawn (RFC 7526)
    "192.168.0.0/16",  # private (RFC 1918)
    "198.18.0.0/15",  # benchmarking (RFC 2544)
    "198.51.100.0/24",  # documentation (RFC 5737)
    "203.0.113.0/24",  # documentation (RFC 5737)
    "224.0.0.0/4",  # multicast (RFC 5771)
    "240.0.0.0/4",  # reserved, and the limited broadcast (RFC 1112, RFC 919)
    "::/128",  # unspecified (RFC 4291)
    "::1/128",  # loopback (RFC 4291)
    "::ffff:0:0/96",  # IPv4-mapped (RFC 4291)
    "64:ff9b::/96",  # NAT64: any IPv4 address behind a translator (RFC 6052)
    "64:ff9b:1::/48",  # NAT64 of a local network (RFC 8215)
    "100::/64",  # discarded (RFC 6666)
    "2001::/23",  # protocol assignments: Teredo, benchmarking, ORCHID (RFC 2928)
    "2001:db8::/32",  # documentation (RFC 3849)
    "2002::/16",  # 6to4: any IPv4 address in disguise (RFC 3056)
    "3fff::/20",  # documentation (RFC 9637)
    "5f00::/16",  # segment routing (RFC 9602)
    "fc00::/7",  # unique-local (RFC 4193)
    "fe80::/10",  # link-local (RFC 4291)
    "fec0::/10",  # site-local, withdrawn (RFC 3879)
    "ff00::/8",  # multicast (RFC 4291)
    "::/3",  # below global unicast, which is 2000::/3 (RFC 4291)
    "4000::/2",  # above it: unassigned
    "8000::/1",  # further above it: unassigned, and the local ranges
)
