"""Host only: people in place of the synthetic teacher. What they are asked, shown and say; the page they say it in.

pairs           pairs of segments as records, the form in which they are stored
label_store     the pairs and the answers, in an SQLite file
label_schema    how that file is laid out, made and opened
labels_file     the same in one NumPy file, for other runs, machines and programs
desk            who is shown which pair, and what may be answered
clips           a pair as pictures
progress        what the run is doing, in words and curves
application     the page's requests, and what they do
requests        what each may say
security        what each must be
server          the thread that serves the page
client          labelling by program
human_teacher   asks queries, waits for answers, hands them to the training loop
"""
