"""What Stripe takes and answers, derived at test time from the installed `stripe` package.

`sources` reads the package's files without importing them, `kinds` turns their annotations into a
small algebra of types, `operations` finds every verb and path, `requests` and `answers` hold what
went over the wire against them, `exchange` judges a request together with its answer. `recorded`
starts the sandbox so that it writes down all it is asked and all it says, and `recording` reads
that back at the end of every test: an exchange that Stripe would not have had fails the test.
`stored` judges the file of a sandbox nobody listened to, `coverage` lists what is never tried.

No file of Stripe's is copied, so the judge is always the pinned version. It does not know lengths,
ranges or "one of these two" rules, and it takes enumerations that Stripe calls open for closed.
"""
