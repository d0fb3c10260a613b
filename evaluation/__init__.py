"""Out-of-fold evaluation of the ensemble: scores, fitted weights, calibrated confidence, a page.

In order of reading: `pair_set` (the pairs and their folds), `cross_validation` (every member on
every pair, by `member_cache` and `cached_members`), `blend_statistics` and `nested_cv` (fitting),
`calibration` (confidence), `retrieval_metrics` and `report` (figures), `study` (the whole run),
`plots` and `report_page` (the HTML page).
"""
