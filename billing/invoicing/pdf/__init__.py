"""Invoices and credit notes as PDF. The same document is the same bytes, wherever ReportLab and
zlib are of the same version.

`fonts` sets text of any script, `sheet` is the paper with its header and footer, `invoice` and
`credit_note` say what stands on it, `usage` is the appendix. All of it is made from values
(`documents`): nothing here reads a table or a clock.
"""
