"""How exact: labelled data sets, protocols, metrics, reports."""
