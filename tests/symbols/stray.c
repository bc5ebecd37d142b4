/* Wrong on purpose: one name that is ours and one that is not. */
int prospect_kept(void);
int stray(void);
int prospect_kept(void) { return 0; }
int stray(void) { return 1; }
